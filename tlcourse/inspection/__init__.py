"""See what a network's layers respond to, and which part of an image decides.

Nothing here changes the model: modes, gradients, `requires_grad` and buffers stay as they were.
"""

from tlcourse.inspection.attribution import grad_cam, occlusion_map
from tlcourse.inspection.filters import responses, stem_filters
from tlcourse.inspection.patches import Patches, top_patches

__all__ = ["Patches", "grad_cam", "occlusion_map", "responses", "stem_filters", "top_patches"]
