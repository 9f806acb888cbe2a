"""Where pictures come from: the data sets that are known (catalog), and pairs of blurred and sharp (pairs)."""
