"""Both networks in PyTorch, with its default initialisation."""

from torch import Tensor, nn
from torch.nn import functional


def create_model(name: str, image_size: int, num_classes: int) -> nn.Module:
    """Returns `custom_cnn` or `resnet18`."""
    return ResNet18(num_classes) if name == "resnet18" else CustomCNN(image_size, num_classes)


class CustomCNN(nn.Module):
    """Three convolutions and three dense layers."""

    def __init__(self, image_size: int, num_classes: int):
        super().__init__()
        side = (((image_size - 2) // 2 - 2) // 2 - 6) // 2
        self.conv1 = nn.Conv2d(3, 10, 5, padding=1, bias=False)
        self.batch_norm1 = nn.BatchNorm2d(10)
        self.conv2 = nn.Conv2d(10, 20, 5, padding=1)
        self.batch_norm2 = nn.BatchNorm2d(20)
        self.conv3 = nn.Conv2d(20, 10, 7)
        self.batch_norm3 = nn.BatchNorm2d(10)
        self.linear1 = nn.Linear(side * side * 10, 1024)
        self.linear2 = nn.Linear(1024, 512)
        self.linear3 = nn.Linear(512, num_classes)
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = functional.max_pool2d(functional.relu(self.batch_norm1(self.conv1(x))), 2)
        x = functional.max_pool2d(functional.relu(self.batch_norm2(self.conv2(x))), 2)
        x = functional.max_pool2d(functional.relu(self.batch_norm3(self.conv3(x))), 2)
        x = functional.relu(self.dropout(self.linear1(x.flatten(1))))
        x = self.dropout(functional.relu(self.linear2(x)))
        return self.linear3(x)


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, in_features: int, out_features: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_features, out_features, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_features)
        self.conv2 = nn.Conv2d(out_features, out_features, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_features)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_features != out_features:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_features, out_features, 1, stride, bias=False), nn.BatchNorm2d(out_features)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Returns the block's activations."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.downsample(x))


class ResNet18(nn.Module):
    """torchvision's resnet18."""

    def __init__(self, num_classes: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(64, 64, 1)
        self.layer2 = _stage(64, 128, 2)
        self.layer3 = _stage(128, 256, 2)
        self.layer4 = _stage(256, 512, 2)
        self.fc = nn.Linear(512, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits."""
        x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def _stage(in_features: int, out_features: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_features, out_features, stride)
    return nn.Sequential(first, BasicBlock(out_features, out_features, 1))
