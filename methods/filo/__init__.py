"""FiLo: fine-grained descriptions and high-quality localisation (Gu et al., ACM MM 2024)."""
