//! File trees: walk, patterns, content digests, copy, layer apply and diff.
