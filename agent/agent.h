// Agent: owns the parts and knows how they start, change and end. Member order is start order;
// destruction is shutdown order.
//
// The spool is a state, not a precondition: listeners, health and console run while it is opening,
// recovering or failed. A spool that failed is reopened only by a fresh process image: run_command
// re-executes the program with its listening sockets kept.
#pragma once

#include "agent/control.h"
