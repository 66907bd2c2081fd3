"""Pure joining logic: state, operator, effects."""
