"""Recipe cards, one file a paper; an installed package carries them as `mexjax/configs`."""
