"""Recipe cards: one file a paper; `common.py` holds every key."""
