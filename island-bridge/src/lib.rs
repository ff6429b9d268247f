//! Links between islands.
