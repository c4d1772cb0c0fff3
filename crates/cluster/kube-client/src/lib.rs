//! Client and informer cache over an exchangeable transport; the words that cluster parts share.
