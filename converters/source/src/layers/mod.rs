//! Layers of neural networks, of values and plain numbers: what several tables compose alike, after each has read what its
//! operators say.

pub mod activation;
pub mod attention;
pub mod convolution;
pub mod deformable;
pub mod einsum;
pub mod elimination;
pub mod grid;
pub mod inverse;
pub mod linear;
pub mod loss;
pub mod normalization;
pub mod padding;
pub mod pooling;
pub mod recurrent;
pub mod regions;
pub mod resize;
pub mod space;
pub mod suppression;
pub mod walk;
