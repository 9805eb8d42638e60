"""AC4AU: action units from what changes in a clip."""
