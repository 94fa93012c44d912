"""Week 23: scenes from photographs (NeRF, Mildenhall et al. 2020) and proteins (AlphaFold)."""

import lazy_loader as lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    submod_attrs={
        "cameras": ["camera_rays", "turntable"],
        "gaussians": ["Gaussians"],
        "grid": ["VoxelGrid"],
        "hashgrid": ["HashGrid"],
        "metrics": ["psnr", "ssim"],
        "mlp": ["RadianceMLP"],
        "render": ["RenderSettings", "rays_of", "render_rays", "render_views"],
        "rendering": ["composite", "ray_weights"],
    },
)
