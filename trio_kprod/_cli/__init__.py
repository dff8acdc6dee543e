"""The command line: ``python -m trio_kprod send`` and ``ping``. Needs the extra ``cli``.

==============  ========================================================================================
`_commands`     what users type: commands, options, exit codes
`_configuring`  settings from options, files and the environment
`_lines`        lines and JSON lines as messages, and back
`_send`         `send`
`_ping`         `ping`
==============  ========================================================================================
"""

from ._commands import main as main
