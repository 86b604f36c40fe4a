//! Matrix products, decompositions and seeded random numbers. Everything runs on the calling thread and gives the same
//! bits for the same input.
mod eigen;
mod procrustes;
mod gemm;
pub mod random;
mod scalar;

pub use eigen::{eigenvalues_of, generalised_eigen, generalised_eigen_of};
pub use gemm::{NORM_FLOOR, dot, inner, largest, matmul, norm, normalise, product, slices, slices_mut, sum, unit_rows};
pub use procrustes::{semi_orthogonal, solve_symmetric};
pub use scalar::Scalar;
