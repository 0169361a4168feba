"""The viewer: a viser application on what a `link.Session` hands it. viser is imported when a viewer starts."""
