"""FDP: fine-grained dynamic perception."""
