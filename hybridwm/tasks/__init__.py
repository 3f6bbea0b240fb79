"""From a wish to controls: tasks as data, bound to a scene, planned, certified, driven."""
