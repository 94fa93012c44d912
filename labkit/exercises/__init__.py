"""Exercises: started from the solution, graded, and the graders graded."""
