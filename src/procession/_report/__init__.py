"""Views of a recording. Pure: from the model of `lifeline`, never from live objects."""
