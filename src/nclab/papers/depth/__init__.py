"""Neural Collapse is Globally Optimal in Deep Regularized ResNets and Transformers (arXiv 2505.15239)."""
