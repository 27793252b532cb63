"""A stand-in for ``nvidia-smi`` that reports the cards which a machine was rented with."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Cards:
    """The cards of one machine, all of one model.

    Attributes:
        name: as the driver names it, such as ``"NVIDIA GeForce RTX 4090"``.
        memory: MiB of each, as the driver reports it.
        count: how many.
        driver: its version.
    """

    name: str
    memory: int
    count: int
    driver: str = "570.133.20"


_SCRIPT: Final = """#!/bin/sh
name={name} memory={memory} count={count} driver={driver}
query= format=,
for word do
  case $word in
  --query-gpu=*) query=${{word#*=}} ;;
  --format=*) format=${{word#*=}}, ;;
  esac
done
if [ -z "$query" ]; then
  i=0
  while [ $i -lt $count ]; do
    echo "GPU $i: $name (UUID: GPU-00000000-0000-0000-0000-00000000000$i)"
    i=$((i + 1))
  done
  exit 0
fi
case ,$format in *,noheader,*) ;; *) echo "$query" | sed 's/,/, /g' ;; esac
case ,$format in *,nounits,*) unit= ;; *) unit=" MiB" ;; esac
i=0
while [ $i -lt $count ]; do
  line= rest=$query,
  while [ -n "$rest" ]; do
    field=${{rest%%,*}} rest=${{rest#*,}}
    case $field in
    name|gpu_name) value=$name ;;
    memory.total|memory.free) value=$memory$unit ;;
    memory.used) value=0$unit ;;
    index) value=$i ;;
    count) value=$count ;;
    uuid|gpu_uuid) value=GPU-00000000-0000-0000-0000-00000000000$i ;;
    driver_version) value=$driver ;;
    *) echo "Field \\"$field\\" is not a valid field to query."; exit 2 ;;
    esac
    line="$line${{line:+, }}$value"
  done
  echo "$line"
  i=$((i + 1))
done
"""


def nvidia_smi(cards: Cards) -> str:
    """A shell script that answers what ``nvidia-smi`` is usually asked."""
    return _SCRIPT.format(
        name=shlex.quote(cards.name),
        memory=cards.memory,
        count=cards.count,
        driver=shlex.quote(cards.driver),
    )
