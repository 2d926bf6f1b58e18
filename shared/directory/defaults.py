"""What a site has before its bundle says otherwise (ours; a bundle replaces each of them).

Told by default are the acts that the applicant waits for or must do something about; by SMS to a mobile
number, else by post. Every text names the dossier's code and fits one SMS without tones. Version 0: any
version of a bundle is newer.
"""

from __future__ import annotations

from typing import Final, get_args

from shared.directory.bundle import (
    CarrierEntry,
    Language,
    NoticeRule,
    ProviderEntry,
    QuietHours,
    SmsSettings,
    TemplateEntry,
)

_TEXTS: Final[dict[str, dict[Language, str]]] = {
    "received": {
        "vi": "Hồ sơ {code} đã được tiếp nhận. Hẹn trả kết quả: {due}.",
        "en": "Dossier {code} has been received. The result is due on {due}.",
    },
    "refused": {
        "vi": "Hồ sơ {code} không được tiếp nhận. Lý do: {reason}",
        "en": "Dossier {code} was not accepted. Reason: {reason}",
    },
    "supplement-requested": {
        "vi": "Hồ sơ {code} cần bổ sung: {reason}",
        "en": "Dossier {code} needs more papers: {reason}",
    },
    "payment-requested": {
        "vi": "Hồ sơ {code} cần nộp {amount} đồng phí, lệ phí.",
        "en": "Dossier {code}: please pay a fee of {amount} VND.",
    },
    "extended": {
        "vi": "Xin lỗi vì chậm trả kết quả hồ sơ {code}. Hẹn trả lại: {due}. Lý do: {reason}",
        "en": "We are sorry for the delay of dossier {code}. The new date is {due}. Reason: {reason}",
    },
    "rescheduled": {
        "vi": "Ngày hẹn trả kết quả hồ sơ {code} được đổi thành {due}.",
        "en": "The result of dossier {code} is now due on {due}.",
    },
    "resolved": {
        "vi": "Hồ sơ {code} đã có kết quả: {result}. Mời nhận kết quả.",
        "en": "Dossier {code} has a result: {result}. Please collect it.",
    },
    "stopped": {
        "vi": "Hồ sơ {code} đã dừng giải quyết. Lý do: {reason}",
        "en": "Dossier {code} has been stopped. Reason: {reason}",
    },
    "returned": {
        "vi": "Kết quả hồ sơ {code} đã được trả qua bưu chính công ích.",
        "en": "The result of dossier {code} has been returned by post.",
    },
}
_SWITCHED_OFF: Final = frozenset({"returned"})  # who opens the door to the post knows it already

DEFAULT_TEMPLATES: Final[tuple[TemplateEntry, ...]] = tuple(
    TemplateEntry(name=act, version=0, lang=language, tones="keep_within", parts=1, text=texts[language])
    for act, texts in _TEXTS.items()
    for language in get_args(Language)
)

DEFAULT_NOTICES: Final[tuple[NoticeRule, ...]] = tuple(
    NoticeRule(act=act, template=act, return_by="postal", enabled=False)
    if act in _SWITCHED_OFF
    else NoticeRule(act=act, template=act)
    for act in _TEXTS
)

DEFAULT_QUIET_HOURS: Final = QuietHours(from_time="22:00", to="07:00")
DEFAULT_SMS: Final = SmsSettings()
DEFAULT_PROVIDERS: Final = (ProviderEntry(name="file", kind="file"),)
DEFAULT_CARRIERS: Final = (CarrierEntry(name="file", kind="file"),)
