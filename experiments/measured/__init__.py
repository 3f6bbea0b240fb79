"""What the studies on measured data share: reading a user's folder, folds by group, intervals, finished parts."""
