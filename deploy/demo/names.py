"""Invented Vietnamese names: test data is nobody's."""

import random

# fmt: off
_FAMILY = (
    "Nguyễn", "Trần", "Lê", "Phạm", "Hoàng", "Vũ", "Đặng", "Bùi", "Đỗ", "Ngô", "Dương", "Lý", "Ma", "Hà", "Nông",
)
_WOMEN = (
    ("Thị", "Thị Thu", "Thị Hồng", "Ngọc", "Thị Bích", "Thùy"),
    ("Hoa", "Lan", "Hương", "Thủy", "Yến", "Nhung", "Hạnh", "Phượng", "Trang", "Loan", "Hiền", "Thảo", "Mến"),
)
_MEN = (
    ("Văn", "Đức", "Quang", "Mạnh", "Hữu", "Xuân", "Đình"),
    ("Hùng", "Dũng", "Tuấn", "Sơn", "Thắng", "Cường", "Bình", "Khánh", "Phúc", "Tiến", "Đạt", "Hiếu", "Thành"),
)
_TRADES = (
    "tạp hóa", "vật liệu xây dựng", "sửa chữa xe máy", "chè búp khô", "may mặc", "ăn uống", "nông sản",
)
# fmt: on


def person_name(rng: random.Random) -> str:
    """A name as it stands on a dossier, with its tones."""
    middle, given = rng.choice((_WOMEN, _MEN))
    return f"{rng.choice(_FAMILY)} {rng.choice(middle)} {rng.choice(given)}"


def business_name(rng: random.Random) -> str:
    """A household business named after its trade and its owner."""
    return f"Hộ kinh doanh {rng.choice(_TRADES)} {person_name(rng)}"
