"""The glass: collect, fit, plan in closed loop, compare, report."""
