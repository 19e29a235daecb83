# tcnca_processor(<variable>): the family of this machine's processor as the name of a folder, zen5 or emerald_rapids;
# else vendor, family and model, or the architecture.
function(tcnca_processor variable)
  set(name ${CMAKE_HOST_SYSTEM_PROCESSOR})
  if(EXISTS /proc/cpuinfo)
    file(STRINGS /proc/cpuinfo lines REGEX "^(vendor_id|cpu family|model)[ \t]*:" LIMIT_COUNT 3)
    if(lines MATCHES ": (.+);.*: ([0-9]+);.*: ([0-9]+)$")
      set(name "${CMAKE_MATCH_1} ${CMAKE_MATCH_2} ${CMAKE_MATCH_3}")
    endif()
  endif()
  foreach(known
      "zen5=AuthenticAMD 26 .*"
      "zen4=AuthenticAMD 25 (1[6-9]|2[0-9]|3[01]|9[6-9]|1[01][0-9]|12[0-7]|16[0-9]|17[0-5])"
      "zen3=AuthenticAMD 25 .*"
      "granite_rapids=GenuineIntel 6 17[34]"
      "emerald_rapids=GenuineIntel 6 207"
      "sapphire_rapids=GenuineIntel 6 143"
      "ice_lake=GenuineIntel 6 10[68]")
    string(REGEX MATCH "^([^=]*)=(.*)$" both "${known}")
    set(family ${CMAKE_MATCH_1})
    if(name MATCHES "^${CMAKE_MATCH_2}$")
      set(name ${family})
      break()
    endif()
  endforeach()
  string(MAKE_C_IDENTIFIER "${name}" name)
  string(TOLOWER "${name}" name)
  set(${variable} ${name} PARENT_SCOPE)
endfunction()
