"""HTTP gateway of Headrace: events in, recommendations out."""
