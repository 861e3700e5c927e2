"""See what a network's layers respond to, and which part of an image decides.

Nothing here changes the model: modes, gradients, `requires_grad` and buffers stay as they were.
"""

from tlcourse.inspection.attribution import occlusion_map
from tlcourse.inspection.layers import Patches, responses, stem_filters, top_patches

__all__ = ["Patches", "occlusion_map", "responses", "stem_filters", "top_patches"]
