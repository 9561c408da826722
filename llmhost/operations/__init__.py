"""Operations: each compares facts with the declared state and yields only what is missing."""
