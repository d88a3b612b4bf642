# Sets MINIMAX_HAS_CUDA: whether this build has the CUDA backend.

set(MINIMAX_HAS_CUDA OFF)
if(MINIMAX_CUDA STREQUAL "AUTO" OR MINIMAX_CUDA)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    enable_language(CUDA)
    # CMake 3.25 does not know that this compiler speaks C++20.
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA_STANDARD 20)
    find_package(CUDAToolkit QUIET)
  endif()
  if(CUDAToolkit_FOUND AND CUDAToolkit_VERSION VERSION_GREATER_EQUAL 12.8 AND TARGET CUDA::cublasLt)
    set(MINIMAX_HAS_CUDA ON)
    message(STATUS "CUDA: toolkit ${CUDAToolkit_VERSION}, building the CUDA backend")
  elseif(MINIMAX_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA: no toolkit of 12.8 or newer was found, building for the CPU alone")
  else()
    message(FATAL_ERROR "CUDA: MINIMAX_CUDA is ${MINIMAX_CUDA} and no toolkit of 12.8 or newer was found; "
                        "install one (nvcc on the PATH) or set MINIMAX_CUDA=OFF")
  endif()
endif()
