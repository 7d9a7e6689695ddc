"""Training: one visible loop (`loop.fit`) and the tasks that say what to train."""
