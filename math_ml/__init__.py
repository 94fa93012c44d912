"""Week 1: linear and logistic regression, and the linear algebra under them, in NumPy alone."""

import lazy_loader as lazy

# Functions named like their module (cholesky, conjugate_gradient, gradient_descent) are not listed:
# `from math_ml import cholesky` must always give the module.
__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "checks": [
            "CollinearWarning",
            "ConstantColumnWarning",
            "ConvergenceWarning",
            "SeparationWarning",
        ],
        "cholesky": ["cholesky_solve"],
        "conjugate_gradient": ["chebyshev_bound", "incomplete_cholesky", "jacobi"],
        "eigen": ["lanczos", "largest_eigenpairs", "power_iteration"],
        "gradient_descent": ["condition_number", "steps_needed"],
        "lasso": ["LassoFit", "alpha_max", "fit_lasso", "fit_proximal", "lasso_path"],
        "linear": ["fit_normal", "fit_qr", "fit_ridge", "fit_sgd", "fit_svd"],
        "logistic": [
            "expected_calibration_error",
            "fit_newton",
            "log_loss",
            "reliability",
        ],
        "model": ["LinearModel", "LogisticModel", "sigmoid"],
        "model_selection": ["Standardizer", "k_fold", "out_of_fold", "r2", "train_valid_split"],
        "qr": ["householder_qr", "least_squares", "solve_triangular"],
        "softmax": ["fit_softmax"],
        "svd": ["randomized_svd"],
    },
)
