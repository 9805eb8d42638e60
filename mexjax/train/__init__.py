"""From a configuration and a folder to a recorded run."""
