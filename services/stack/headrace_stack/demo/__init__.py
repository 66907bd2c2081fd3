"""The demo: a crowd whose taste moves, and a platform that follows it, told live and checked."""
