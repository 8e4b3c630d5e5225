"""Networks with weights: weight files, other libraries' names, what a run starts from, predictions
and features.
"""
