//! Matrix products and decompositions.
