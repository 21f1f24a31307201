"""Images: where they come from, how they are kept, and how they reach the device."""

from hpjax.data.dataset import Dataset, load_dataset
from hpjax.data.splits import Split

__all__ = ["Dataset", "Split", "load_dataset"]
