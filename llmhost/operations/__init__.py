"""Operations: they compare facts with what is declared and yield only what is missing."""
