//! Tokens of a question by estimate, where nobody has counted them.
