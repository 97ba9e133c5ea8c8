"""A shared stack of blocks applied K times: gates, exits, halting and sharpening of its loops."""
