"""Networks with weights: weight files, conversion, initial weights, predictions and features."""
