"""The keeper, executed and never imported: guard and zygote, who start, reap and end processes."""
