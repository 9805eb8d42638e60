"""Operations without parameters: pure functions of arrays."""
