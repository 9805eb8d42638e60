"""From a release of a dataset, or from a user's own clips, to a folder of prepared clips."""
