//! Matrix products, decompositions and seeded random numbers. Everything runs on the calling thread and gives the same
//! bits for the same input.
mod eigen;
mod polar;
mod product;
pub mod random;
mod real;

pub use eigen::{eigenvalues_of, generalised_eigen, generalised_eigen_of};
pub use polar::{semi_orthogonal, solve_symmetric};
pub use product::{
    NORM_FLOOR, dot, inner, largest, matmul, norm, normalise, product, slices, slices_mut, sum, unit_rows,
};
pub use real::Real;
