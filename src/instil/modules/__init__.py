"""Building blocks of methods: modules with parameters or buffers."""
