"""The settings: every option of `open_producer`, checked and converted before any connection.

================  ======================================================================================
`_config`         the tables of all options, `Settings`, and how options may not contradict each other
`_options`        checks of single options that need more than a line
`_security`       TLS and SASL
`_checks`         checks of values: numbers, times, texts
`_problems`       everything that is wrong, told at once
`_translate`      `settings_from`: other clients' settings, and those of an environment, as ours
`_other_clients`  the table of the settings of other clients
`_parse`          values that are text
================  ======================================================================================
"""

from ._checks import (
    integer as integer,
    shown as shown,
    wrong_type as wrong_type,
    wrong_value as wrong_value,
)
from ._config import (
    ClientConfig as ClientConfig,
    NamedSettings as NamedSettings,
    ProducerSettings as ProducerSettings,
    Settings as Settings,
    make_settings as make_settings,
    show_client_settings as show_client_settings,
)
from ._other_clients import plain as plain
from ._translate import settings_from as settings_from
