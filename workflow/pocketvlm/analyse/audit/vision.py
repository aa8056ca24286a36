"""Operations and tokens of a vision transformer, in closed form."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class VisionTransformer:
    """The shape of an image encoder: side of image and patch in pixels, width, layers, width of the mlp."""

    image: int
    patch: int
    width: int
    layers: int
    mlp: int

    @property
    def patches(self) -> int:
        """Image tokens that it gives, without the class token."""
        return (self.image // self.patch) ** 2

    def operations(self) -> float:
        """Return the floating-point operations of one image, a multiply-accumulate counted as two.

        Per layer and token (the class token included, n in all): query, key, value and output projections
        4 w^2, the mlp 2 w m; scores and their product with the values 2 n w. Once: the patch embedding,
        3 p^2 w a patch. (Dosovitskiy et al. 2021, arXiv 2010.11929, equations 1 to 4.)
        """
        n = self.patches + 1
        layer = n * (4 * self.width**2 + 2 * self.width * self.mlp) + 2 * n**2 * self.width
        embedding = self.patches * 3 * self.patch**2 * self.width
        return 2.0 * (self.layers * layer + embedding)


CLIP_L_336 = VisionTransformer(image=336, patch=14, width=1024, layers=24, mlp=4096)
"""ViT-L/14 at 336 px (Radford et al. 2021, arXiv 2103.00020, table 20), the tower of LLaVA-1.5 and MobileVLM
(arXiv 2310.03744, section 3; arXiv 2312.16886, section 3.2)."""

CORE_CLOCK_HZ = 3.3e9
"""The fastest core of a Snapdragon 8 Gen 3 (Qualcomm's product brief); all cores are taken to run so fast."""

OPERATIONS_PER_CYCLE = 256
"""The most that one of its cores could do: four 128-bit vector units (Arm Cortex-X4), each one SMMLA a cycle,
32 multiply-accumulates of 8-bit integers. Floating point is a quarter of it or less."""


def cpu_peak(cores: int) -> float:
    """Return operations a second that no CPU of so many cores of that chip can exceed."""
    return cores * CORE_CLOCK_HZ * OPERATIONS_PER_CYCLE
