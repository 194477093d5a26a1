"""Neural collapse under class imbalance: many centres a class, and alignment of class means and classifier rows."""
