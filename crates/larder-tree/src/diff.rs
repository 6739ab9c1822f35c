//! Layers made of the changes of a tree.
