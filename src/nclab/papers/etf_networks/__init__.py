"""Fixed and nearest simplex ETF classifiers on convolutional networks (arXiv 2105.02375, 2411.01248)."""
